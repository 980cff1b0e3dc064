"""Studies: grids of submissions over seeds, run to the end, and one report on what they show."""
