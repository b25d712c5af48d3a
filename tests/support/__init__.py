"""What tests that drive the real command share: projects made of fakes, runs, reading back, looking for leftovers."""
