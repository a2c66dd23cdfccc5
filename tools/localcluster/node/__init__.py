"""A cluster's node: containerd, the kubelet, how images get there, what they see of the machine."""
