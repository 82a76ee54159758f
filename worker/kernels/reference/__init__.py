"""Every operation in plain torch: always there, on any device. The others are tested against it."""
