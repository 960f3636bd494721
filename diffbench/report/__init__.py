"""What people look at: the FID and throughput tables, and the sample grids."""
