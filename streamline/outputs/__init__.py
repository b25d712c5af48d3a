"""What blocks return, kept as files that come back as they went."""
