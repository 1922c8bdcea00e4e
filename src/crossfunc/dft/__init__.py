"""Labels by density-functional theory: plan, engine, run and checks of the dataset `pbe-r2scan`."""
