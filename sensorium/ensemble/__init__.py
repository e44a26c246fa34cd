"""Ensembles of answers: a predictable column's answer is a weighted combination of the network's and of plain models'.

Members are files of ``members/``. ``weights`` chooses how much each counts for the columns that a row shows.
"""
