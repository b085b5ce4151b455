"""What a dynamic-kernel model costs where it will run: ``python -m export.benchmark``.

The headline is the **dynamic tax**: the latency of a model over that of its static twin (the same backbone,
suffix ``_static``), on the same runtime, at the same batch size, in the same run, interleaved.

    plan          which models are run how: the candidates
    engines       one row for each way to run a model; what it needs is in engine, networks, formats, inductor
    subjects      the networks themselves, and the peers: what people run today
    prepare       every candidate made, and held against the eager model
    run           all of it, in an order that is fair; measure takes the times, memory what it takes
    handoff       how far apart two threads' cores are
    statistics    percentiles, paired ratios and their intervals
    results       what was measured, as JSON
    render, plot  tables and the picture, made of the JSON alone
    compare       one run against an earlier one
    breakdown     where a runtime's time goes, layer by layer, by its own clocks; profile and attribution
                  read them, ceilings says what the machine could do
"""
