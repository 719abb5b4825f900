-- Adds a header to every message that passes: the smallest useful policy, and a first look at what a policy knows.
--
--   pmx-milter try examples/add_header.lua message.eml
--
-- A policy is a table of functions, one for each step of the SMTP dialogue that it wants to see. What is not in the table is not
-- asked of the MTA at all, so a short policy is also a fast one.
local policy = {}

-- ctx.client and ctx.sender exist if the policy has the callback of their step (connect, mail) or, as here, asks to have them kept.
policy.collect = { "client", "sender" }

-- "eom" is end of message. Only here can a message be changed.
function policy.eom(ctx)
  -- Addresses come without angle brackets; the null sender of bounces is "".
  local sender = ctx.sender == "" and "null sender" or "sender " .. ctx.sender

  -- The address is nil when the MTA does not know it.
  local address = ctx.client.address or "unknown"

  -- The queue id is nil until the MTA has told it; at eom both Postfix and Sendmail have.
  local id = ctx.queue_id or "no id"

  ctx:add_header("X-Filter", "ok; " .. sender .. "; client " .. address .. "; " .. id)

  -- Nothing returned means: go on. At end of message that is: take the message, with the changes.
end

return policy
