"""What the bundled taps and targets share: settings, command line, errors, and how they are started."""
