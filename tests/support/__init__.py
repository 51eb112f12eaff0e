"""What tests share: whole servers, and receivers at the outer edge."""
