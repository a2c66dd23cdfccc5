"""What a machine may lack: packages, Kubernetes' binaries, kubectl."""
