"""Folders that DeepSpeed saves, read without DeepSpeed.

`_files` opens the files by their names. `_partitions` reads what each rank has of the optimizer, and `_places` computes
where in these flat vectors each parameter is. `_model_states` reads what the files say of the model, `_weights` puts the
model together, and `_optimizer` the optimizer's state. `_zero` reads a folder of one step, and `_universal` the output of
`ds_to_universal.py`.
"""
