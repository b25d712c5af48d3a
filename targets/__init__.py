"""Singer targets that come along with Streamline; in the wheel this folder is the package `streamline_targets`."""
