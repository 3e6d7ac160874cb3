"""What differs between diffusion models."""
