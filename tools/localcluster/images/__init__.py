"""Images on this machine: what they are made of, who builds them and who keeps them."""
