"""The parts of a running load: reading, parsing in workers, gathering, writing."""
