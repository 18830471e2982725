"""Systems that label every pixel, voxel or point, and what they share."""
