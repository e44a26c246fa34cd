"""Media files: bytes to arrays and back, for images, video, audio and documents."""
