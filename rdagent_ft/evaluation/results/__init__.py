"""What one model's evaluation leaves on disk, reading it again, and comparing two of them."""
