"""One file per chart: `data(…) -> DataFrame` returns the numbers, `draw(data, …) -> Figure` draws them."""
