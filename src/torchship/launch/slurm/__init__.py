"""Slurm: an image run as a job of a cluster, by sbatch and srun."""
