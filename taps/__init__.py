"""Singer taps bundled with Streamline; in the wheel this folder is the package `streamline_taps`."""
