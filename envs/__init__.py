"""Gymnasium environments that stand on their own: none of them imports medray, Ray or PyTorch."""
