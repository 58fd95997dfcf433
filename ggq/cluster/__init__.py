"""Many machines through Ray: who connects, who keeps actors at work, what an actor does.

Nothing else imports Ray, and nothing imports this package unless ``--cluster`` asks for it. What is
done with a piece of work, and that it counts once, is known without Ray:
`ggq.runtime.server.parts`.
"""
