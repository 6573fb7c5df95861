"""The second listener: what operators and kubelets ask.  Never on the path of a call."""
