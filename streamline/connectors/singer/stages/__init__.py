"""What happens to a tap's messages between tap and target, one stage per file; see `flow.protocols.Stage`."""
