"""Layers: plain torch modules and functions that know no column, no modality and no loss of Sensorium's own."""
