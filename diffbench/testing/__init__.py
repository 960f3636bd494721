"""What a component's author needs to prove it: exact oracles."""
