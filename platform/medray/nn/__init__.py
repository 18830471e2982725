"""Network parts shared by systems that neither PyTorch nor MONAI has."""
