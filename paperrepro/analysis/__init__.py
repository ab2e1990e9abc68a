"""Looking inside a network: what it sees, what its kernels learn, what it decides by."""
