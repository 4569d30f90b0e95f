"""Coupled channels, found in a model's traced program, and networks that shrink.

    _atoms       which positions live and die together: a union-find
    _labels      what is known of one array: which atom each position along an axis has
    _record      what is gathered: parameters, what they are for, products
    _context     the operations on labels that unite and freeze atoms
    _registry    one rule for each primitive: its labels, and how it runs when smaller;
                 in _control, _elementwise, _indexing, _joining, _layout, _opaque,
                 _products, _slicing, _windows
    _interpret   a whole program by these rules
    _groups      the result: groups, members, what is frozen, costs
    _trace, _collect, _find
                 from a function and its parameters to groups
    _evaluate    the program at the sizes that are left
    _kept, _modules, _layer_sizes, _shrink, _state
                 parameters, function, modules and optimizer state cut to these sizes
    _cost_report what that saves
    _coupled     groups as the structure of a target
    _matching, _members, _left, _scores, _ranking
                 its channels found in an optimizer's parameters, counted and ranked

Each module uses those above it only.
"""
