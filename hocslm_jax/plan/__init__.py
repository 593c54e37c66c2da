"""What a train step will need on devices that are not here: its memory, arithmetic and traffic."""
