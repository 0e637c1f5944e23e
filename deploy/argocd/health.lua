-- The health of an ApplicationLink, a LinkProvider or a ClusterLinkProvider, for Argo CD.

local status = obj.status or {}

local function condition(name)
  for _, c in ipairs(status.conditions or {}) do
    if c.type == name then
      return c
    end
  end
  return {}
end

local ready = condition("Ready")
local stalled = condition("Stalled")

if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = ready.message or "Being deleted" }
end

-- Until the operator has seen this very spec, the conditions speak of another one.
if status.observedGeneration == nil or status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "Waiting for the operator" }
end

if stalled.status == "True" then
  return { status = "Degraded", message = stalled.message }
end

if obj.spec ~= nil and obj.spec.suspend == true then
  return { status = "Suspended", message = ready.message or "Neither refreshed nor repaired" }
end

if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end

return { status = "Progressing", message = ready.message or "Not ready yet" }
