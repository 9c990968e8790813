"""Many machines: an image run as a job of a cluster, by the cluster's own programs."""
