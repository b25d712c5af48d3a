"""Transformer actions: Mage's small library of changes to pandas frames, by what its files import.

An action is a dict (`action_type`, `axis`, `action_arguments`, `action_code`, `action_options`, `action_variables`,
`outputs`); `build_transformer_action` makes one, `BaseAction(action).execute(df)` carries it out. The frame that is
given is never changed; the result is a new one.
"""
