"""Skeleton clips: reading, preparing, augmenting and feeding them."""
