"""What is in the box and how busy it is, read from the drivers without torch: one file per vendor."""
