"""One file per chart: `data(…) -> DataFrame` holds the numbers, `draw(data, …) -> Figure` the ink."""
