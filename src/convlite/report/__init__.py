"""What the other rooms return, shown: pure functions of values."""
