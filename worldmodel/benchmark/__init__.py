"""How far can a dream be trusted?  Any model that can be stepped, any episode store, every horizon.

predictors.py   what is measured: the protocol `Predictor`, this package's worlds and the baselines
protocols.py    how much is given, how much is imagined, and where: the contexts of a store
measures.py     what is measured of every predicted frame, beside the true one
inverse.py      the judge of actions: which action led from one frame to the next?
drift.py        how far a set of frames is from real ones
weights.py      LPIPS, FID and FVD, for those who have the weights
loops.py        turn and turn back: does the same view return?
running.py      contexts x samples x predictors -> raw values, kept on disk as they come
statistics.py   means over contexts, with intervals that respect episodes
summary.py      raw values -> the numbers of a report
comparison.py   two reports -> which is better where
report.py       a report as a page for people
"""
