"""What every provider has to do through both adapters, in every style."""
