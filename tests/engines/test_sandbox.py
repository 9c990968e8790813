def test_a_program_runs_and_its_output_and_status_come_back(sandbox):
    """Standard output, standard error and the exit status are the program's."""
    found = sandbox("bash", "-c", "echo out; echo err >&2; exit 7")
    assert (found.status, found.out, found.err) == (7, "out\n", "err\n")
