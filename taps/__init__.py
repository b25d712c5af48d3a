"""Singer taps that come along with Streamline; in the wheel this folder is the package `streamline_taps`."""
