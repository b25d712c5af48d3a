"""Singer targets bundled with Streamline; in the wheel this folder is the package `streamline_targets`."""
