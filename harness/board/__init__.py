"""The board: records, comparisons, tables and the page. Nothing here needs torch."""
