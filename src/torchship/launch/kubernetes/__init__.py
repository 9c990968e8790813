"""Kubernetes as a cluster: an Indexed Job or a Kubeflow TrainJob, by the user's own kubectl."""
