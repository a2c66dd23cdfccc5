"""What a cluster is served by: certificates, control plane, DNS, volumes."""
