"""Coupled channels, found in a model's traced program, and networks that shrink.

    _atoms       which positions live and die together: a union-find
    _labels      what is known of one array: which atom each position along an axis has
    _context     the operations on labels that unite and freeze atoms
    _rules       one rule for each primitive: its labels, and how it runs when smaller
    _interpret   a whole program by these rules
    _groups      the result: groups, members, what is frozen, costs
    _find        from a function and its parameters to groups
    _evaluate    the program at the sizes that are left
    _shrink      parameters, function, modules and optimizer state cut to these sizes

Each module uses those above it only.
"""
