"""Neural network modules and functions in plain torch. They know no column, no modality and no loss of a recipe."""
