"""What the product means. Pure: no I/O, no threads, no clock; everything from outside is in `ports`."""
