"""What the networks see: numbers of a session that use only what was known at its close.

`price` turns bars into declared, causal, scale-free features (`price_features`, `PRICE_FEATURES`,
`feature_set_hash`) and into `targets`; `text` turns headlines into token ids (`tokenise`,
`Vocabulary`), `lexicon` says what is known of a word (`cues`), `vectors` reads pretrained ones
(`read_vectors`), and `sentiment` their scores into features of a session
(`daily_sentiment`). `folds` cuts time into training, validation and test spans (`walk_forward`,
`fold_table`), and `windows` joins it all for training: the `ModelMatrix` on disk, the
`window_index` of what may be a sample, and each fold's `FoldData`, scaled by its training rows.
"""
